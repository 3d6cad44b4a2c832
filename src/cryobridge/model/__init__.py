"""The model that every file becomes, and every convention."""
