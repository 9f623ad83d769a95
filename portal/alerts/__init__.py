"""Alerts: rules that tenants and operators keep, what makes them fire, and who is told by bell, mail and webhook."""
