"""From a hospital's files to arrays that a network can be trained on."""
