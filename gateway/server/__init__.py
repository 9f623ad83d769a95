"""gunicorn's gevent worker, made as strict as the contract."""
