"""The run's one queue of batch jobs: what to submit, what to wait for, and how lost results come back."""
