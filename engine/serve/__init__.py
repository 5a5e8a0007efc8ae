"""`finetop serve`: OpenAI's API over the workspace's runs, models and queue. No torch in this process."""
