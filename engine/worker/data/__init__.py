"""From examples to tokens: templates, which tokens are trained, packing."""
