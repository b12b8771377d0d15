"""Files of others that a policy is written to or read from: ONNX, and Stable-Baselines3's zip."""
