curl -X POST "https://api.maas.mdx1.jp/v1/chat/completions" \
  -H "Authorization: Bearer your-api-key-here" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "openai/gpt-oss-20b",
    "messages": [
      {
        "role": "user",
        "content": "こんにちは、自己紹介をお願いします。"
      }
    ],
    "temperature": 0.7,
    "max_tokens": 100,
    "stream": false
  }'
