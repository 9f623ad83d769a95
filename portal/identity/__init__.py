"""What sign-in does our way: allauth's adapters, lock-outs, required second factors, the audit trail of both."""
