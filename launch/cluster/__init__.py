"""Batch jobs: the Slurm script and the Kubernetes manifest that run the same sweep."""
