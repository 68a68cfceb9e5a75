"""Networks of finite width: the theorem's gradient flow against width, and the paper's adversarial training."""
