"""Post-hoc defences of a served model: what stands between its scores and who asks for them."""
