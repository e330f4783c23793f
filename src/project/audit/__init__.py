"""What a trained model may be trusted with: calibration, groups, robustness, model card."""
