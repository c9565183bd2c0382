"""PathVQA: questions about pictures of pathology textbooks."""
