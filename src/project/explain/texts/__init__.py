"""Attribution of the predictions for texts to their words."""
