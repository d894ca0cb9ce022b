"""Where the lesion is: Grad-CAM of a frozen ImageNet network finds the part to crop."""
