"""Make for batch-LLM experiments: phases as files with dependencies, resumable, never paid twice."""
