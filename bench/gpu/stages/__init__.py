"""One module for each stage; `gpu.STAGES` has their order."""
