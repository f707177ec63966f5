"""What a job needs beyond single requests: submitting it once, waiting for it, relaying its log."""
