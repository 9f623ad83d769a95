from openai import OpenAI

client = OpenAI(
    base_url="https://api.maas.mdx1.jp/v1",
    api_key="your-api-key-here",
)

completion = client.chat.completions.create(
    model="llm-jp/llm-jp-3.1-13b-instruct4",
    messages=[
        {
            "role": "system",
            "content": "あなたは親切で知識豊富なアシスタントです。"
        },
        {
            "role": "user",
            "content": "Pythonでリストをソートする方法を教えてください。"
        },
        {
            "role": "assistant",
            "content": "Pythonでリストをソートするには、`sorted()`関数または`list.sort()`メソッドを使用します。"
        },
        {
            "role": "user",
            "content": "降順にするにはどうすればいいですか？"
        }
    ],
    temperature=0.7,
    stream=False,
)

print(completion.choices[0].message.content)
