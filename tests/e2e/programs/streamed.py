from openai import OpenAI

client = OpenAI(
    base_url="https://api.maas.mdx1.jp/v1",
    api_key="your-api-key-here",
)

completion = client.chat.completions.create(
    model="openai/gpt-oss-20b",
    messages=[
        {"role": "user", "content": "こんにちは、自己紹介をお願いします。"}
    ],
    temperature=0.7,
    max_tokens=100,
    stream=True,
)

for chunk in completion:
    if chunk.choices and len(chunk.choices) > 0 and chunk.choices[0].delta:
        content = chunk.choices[0].delta.content
        if content:
            print(content, end="", flush=True)
