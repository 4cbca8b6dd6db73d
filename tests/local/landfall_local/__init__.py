"""The local cloud: infra/template.yaml on MiniStack, with the same binaries that AWS gets."""
