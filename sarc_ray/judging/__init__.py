"""How the judge of the gate's pixels is taught and measured; no verb of the command uses this room."""
