"""Networks of finite width: the theorem's gradient flow against width, and adversarial training as the paper compares it."""
