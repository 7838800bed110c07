"""What the probes read with: clocks, samples of a device, counts of operations and collectives, lives of tensors."""
