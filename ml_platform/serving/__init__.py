"""The model server: answers with the champion of every model, by entity id or by full rows."""
