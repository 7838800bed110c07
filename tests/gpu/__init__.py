"""What a GPU has to show: `make test-gpu` runs it on a real one, `make test` most of it on the stand-in."""
