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
    stream=False,
)

# アシスタントの返答を取得
print(completion.choices[0].message.content)

# トークン使用量
if completion.usage:
    print(f"\nトークン使用量:")
    print(f"  プロンプト:{completion.usage.prompt_tokens}")
    print(f"  生成:{completion.usage.completion_tokens}")
    print(f"  合計:{completion.usage.total_tokens}")
