"""Before the first call: tables, an operator, the demo, a configuration file, and all of it published. Idempotent.

Done by the worker's process, which loads Django anyway: `up` itself stays small, and is spared a second of start.
"""

from django.core.management import CommandError, call_command
from django.db import connection

from portal.processes import Order, Prepared


class CannotPrepare(Exception):
    """The message says why, and what to do."""


def prepare(order: Order) -> Prepared:
    """Raises CannotPrepare."""
    from gateway import recovery
    from gateway.config import publish
    from portal import demo, stores

    if stores.unapplied_migrations():
        call_command("migrate", interactive=False, verbosity=0)
    (email, password), key = demo.seed_operator(), None
    if order.simulator_url is not None:
        tenant = demo.seed_tenant(order.simulator_url)
        key = demo.fresh_key(tenant) if order.needs_key else demo.first_key(tenant)
    if order.file is not None:
        try:
            call_command("apply", order.file)
        except CommandError as error:
            raise CannotPrepare(str(error)) from error
    publish.catch_up()
    recovery.restore_counters()
    connection.close()
    return Prepared(email, password, key)
