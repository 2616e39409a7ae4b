"""What a board gets beside the models: programs that need NumPy and ONNX Runtime, not fertool."""
