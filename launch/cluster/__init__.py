"""Batch jobs: how does a cluster run the same sweep?

batch_job.py  the words of `launch run` that every machine of a cluster starts with
slurm.py      a batch script with them
k8s.py        a Kubernetes manifest with them
"""
