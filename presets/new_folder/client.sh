#!/bin/sh
# The same by curl: sh client.sh, with a server that runs (finetop serve --detach).
set -eu
cd "$(dirname "$0")"
if [ -z "${OPENAI_BASE_URL:-}" ]; then
  variables=$(finetop serve env)
  eval "$variables"
fi

ask() { curl -sS --fail-with-body -H "Authorization: Bearer $OPENAI_API_KEY" "$@"; }
# The first value of that name in the JSON that comes in.
value() { grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

file=$(ask "$OPENAI_BASE_URL/files" -F purpose=fine-tune -F file=@chats.jsonl | value id)
job=$(ask "$OPENAI_BASE_URL/fine_tuning/jobs" -H 'Content-Type: application/json' \
  -d "{\"model\": \"gpt-4o-mini-2024-07-18\", \"training_file\": \"$file\", \"suffix\": \"curl\"}" | value id)
echo "$job trains on $file"

while :; do
  answer=$(ask "$OPENAI_BASE_URL/fine_tuning/jobs/$job")
  status=$(echo "$answer" | value status)
  case $status in
    succeeded) break ;;
    failed | cancelled) echo "$answer" && exit 1 ;;
  esac
  sleep 1
done

model=$(echo "$answer" | value fine_tuned_model)
echo "model: $model"
ask "$OPENAI_BASE_URL/chat/completions" -H 'Content-Type: application/json' \
  -d "{\"model\": \"$model\", \"max_tokens\": 60, \"messages\": [{\"role\": \"user\", \"content\": \"What is finetop?\"}]}"
echo
