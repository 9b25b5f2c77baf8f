"""Projects that come with the platform, each as a team's own would be. Nothing else of the platform imports them."""
