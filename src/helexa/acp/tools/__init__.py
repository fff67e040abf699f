"""What the model may do: each tool looks first (``prepare``) and acts after it was allowed."""
