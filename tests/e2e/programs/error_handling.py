from openai import OpenAI, APIError, APIConnectionError, APITimeoutError

client = OpenAI(
    base_url="https://api.maas.mdx1.jp/v1",
    api_key="your-api-key-here",
)

try:
    completion = client.chat.completions.create(
        model="openai/gpt-oss-20b",
        messages=[
            {"role": "user", "content": "こんにちは"}
        ],
        stream=False,
    )
    print(completion.choices[0].message.content)

except APIError as e:
    if e.status_code == 401:
        print("認証エラー: APIキーを確認してください")
    elif e.status_code == 429:
        print("レート制限エラー: しばらく待ってから再試行してください")
    elif e.status_code == 400:
        print(f"リクエストエラー:{e.message}")
    else:
        print(f"APIエラー{e.status_code}:{e.message}")

except APIConnectionError as e:
    print(f"接続エラー:{e}")

except APITimeoutError as e:
    print("タイムアウトエラー: リクエストがタイムアウトしました")

except Exception as e:
    print(f"予期しないエラー:{e}")
