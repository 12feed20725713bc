"""Where bytes come from: directories, GGUF files, the Hugging Face hub, HTTPS, and pip indexes."""
