"""From the entries of a file to steps: what of it differs from the rows. Writes nothing.

What is wrong goes to the file's problems. The steps stand in the order in which they can be performed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from django.conf import settings
from django.db.models import Model

from accounts import issuing
from accounts.audit import MASK
from accounts.keys import is_importable, matches, peppers
from accounts.models import ApiKey, Membership, Tenant, User
from gateway.config import fallbacks, policy_steps, pools
from gateway.config.documents import base_url
from gateway.config.file_format import Entry
from gateway.config.limit_changes import said
from gateway.config.limits import PRICES, differences
from gateway.config.source import known_names
from gateway.config.steps import BY, Change, Draft, Minted, Step, record, removal, revocation
from gateway.models import Backend, Deployment, Limit, ModelAlias, PlannedTenant, fallback_problems, users_first

_TERMS: Final = ("scopes", "aliases", "networks", "expires_at", "error_dialect", "policies")


class Planner:
    """Compares one file with the rows. secret_of: the value of an environment variable, or None."""

    def __init__(self, file: Entry, *, secret_of: Callable[[str], str | None]) -> None:
        self._file = file
        self._secret_of = secret_of
        self._ring = peppers(settings.KEY_PEPPERS)
        self._backends = {row.name: row for row in Backend.objects.all()}
        self._deployments = {
            row.name: row for row in Deployment.objects.select_related(*fallbacks.FIELDS).prefetch_related("members__backend")
        }
        self._tenants = {row.slug: row for row in Tenant.objects.prefetch_related("limits")}
        self._steps: list[Step] = []

    def plan(self, *, prune: bool) -> list[Step]:
        """Everything that differs. prune: also remove what the file's own lists no longer name."""
        for entry in self._entries("backends"):
            self._plan_backend(entry)
        self._plan_deployments()
        of_platform = policy_steps.plan(self._file, None, prune=prune)
        self._steps += of_platform.steps
        for entry in self._entries("tenants"):
            tenant = self._plan_tenant(entry)
            policies = policy_steps.plan(entry, tenant, prune=prune)
            self._steps += policies.steps
            for part in (*entry.parts.get("aliases", ()), *entry.parts.get("keys", ())):
                policy_steps.refuse_unknown(part, of_platform.names | policies.names)
            self._plan_aliases(tenant, entry, prune=prune)
            self._plan_keys(tenant, entry, prune=prune)
            self._plan_members(tenant, entry)
            self._steps += policies.removals
        if prune:  # users before what they use
            self._prune("tenants", dict(sorted(self._tenants.items())))
            self._prune("deployments", {name: self._deployments[name] for name in users_first(self._deployments.values())})
            self._prune("backends", dict(sorted(self._backends.items())))
        self._steps += of_platform.removals
        return self._steps

    def _entries(self, section: str) -> tuple[Entry, ...]:
        return self._file.parts.get(section, ())

    def _add(self, step: Step | None) -> None:
        if step is not None:
            self._steps.append(step)

    def _plan_backend(self, entry: Entry) -> None:
        known = self._backends.get(entry.name)
        row = known or Backend(name=entry.name)
        self._backends[entry.name] = row
        draft = Draft(entry, entry.name, row, is_new=known is None)
        if "url" in entry.values:
            try:
                draft.put("url", base_url(entry.values["url"]))
            except ValueError as error:
                entry.at("url").refuse(str(error))
                return
        if {"api_key", "api_key_env"} & set(entry.values):
            held, credential = _credential(row), self._secret(entry, "api_key")
            if credential != held:
                row.credential = credential
                masked = MASK if credential else None
                draft.tell("credential", MASK if held else None, masked, column="credential_ciphertext")
        if "draining" in entry.values and entry.values["draining"] != row.is_draining:
            draft.tell("draining", row.is_draining, entry.values["draining"], column="is_draining")
            row.is_draining = entry.values["draining"]
        draft.check()
        self._add(draft.step())

    def _plan_deployments(self) -> None:
        entries = {entry.name: entry for entry in self._entries("deployments")}
        new = entries.keys() - self._deployments.keys()
        self._deployments |= {name: Deployment(name=name) for name in new}  # first: one may fall back to another below it
        for name, entry in entries.items():
            self._plan_deployment(entry, is_new=name in new)
        if entries:
            for problem in fallback_problems(self._deployments.values()):
                if named := entries.get(problem.deployment):
                    named.at(problem.field).refuse(problem.message)
                else:  # made wrong by what the file changes of another
                    self._file.at("deployments").refuse(problem.message, f'this is of the deployment "{problem.deployment}"')

    def _plan_deployment(self, entry: Entry, *, is_new: bool) -> None:
        row = self._deployments[entry.name]
        draft = Draft(entry, entry.name, row, is_new=is_new)
        for name, value in entry.values.items():
            if name in fallbacks.FIELDS:
                self._put_deployment(draft, name)
            elif name != "name":
                draft.put(name, value)
        draft.check()
        held = {} if is_new else {member.backend.name: pools.Terms.of(member) for member in row.members.all()}
        pool = held
        if "backends" in entry.parts:
            pool = pools.wanted(entry.parts["backends"], self._backends)
        if pool != held:
            draft.tell("backends", *({name: terms.shown for name, terms in side.items()} for side in (held, pool)))
        self._add(draft.step(after_save=partial(pools.write, row, pool, self._backends)))

    def _put_deployment(self, draft: Draft, name: str) -> None:
        """Point a field of the row at the deployment that the file names there; None: at none."""
        wanted: str | None = draft.entry.values.get(name)
        if wanted is not None and wanted not in self._deployments:
            draft.entry.at(name).refuse(f'no deployment named "{wanted}"', known_names(self._deployments))
            return
        draft.put_row(name, None if wanted is None else self._deployments[wanted])

    def _plan_tenant(self, entry: Entry) -> Tenant:
        known = self._tenants.get(entry.name)
        row = known or Tenant(slug=entry.name)
        draft = Draft(entry, entry.name, row, is_new=known is None)
        values = {name: value for name, value in entry.values.items() if name not in ("slug", "limits")}
        if known is None:
            values.setdefault("name", entry.name)
        for name, value in values.items():
            draft.put(name, value)
        draft.check()
        self._tenants[entry.name] = row
        self._add(draft.step(after_save=_put_limits(draft, row)))
        return row

    def _plan_aliases(self, tenant: Tenant, tenant_entry: Entry, *, prune: bool) -> None:
        current = ModelAlias.objects.filter(tenant=tenant).select_related("deployment", "canary").prefetch_related("limits")
        rows = {row.name: row for row in current}
        named = tenant_entry.parts.get("aliases", ())
        for entry in named:
            known = rows.get(entry.name)
            row = known or ModelAlias(tenant=tenant, name=entry.name)
            draft = Draft(entry, f"{tenant.slug}/{entry.name}", row, is_new=known is None, tenant=tenant)
            for name, value in entry.values.items():
                if name in ("deployment", "canary"):
                    self._put_deployment(draft, name)
                elif name not in ("name", "price", "limits"):
                    draft.put(name, value)
            _put_price(draft)
            draft.check()
            self._add(draft.step(after_save=_put_limits(draft, row)))
        if prune and "aliases" in tenant_entry.parts:
            for name in sorted(rows.keys() - {entry.name for entry in named}):
                self._add(removal("alias", f"{tenant.slug}/{name}", rows[name], tenant_entry.at("aliases"), tenant))

    def _plan_keys(self, tenant: Tenant, tenant_entry: Entry, *, prune: bool) -> None:
        current = ApiKey.objects.filter(tenant=tenant, revoked_at=None, successor=None, is_playground=False)
        rows = {row.name: row for row in current.prefetch_related("limits")}
        named = tenant_entry.parts.get("keys", ())
        aliases = {entry.name for entry in tenant_entry.parts.get("aliases", ())}
        if not (prune and "aliases" in tenant_entry.parts):
            aliases |= set(ModelAlias.objects.filter(tenant=tenant).values_list("name", flat=True))
        for entry in named:
            held = (rows[entry.name].aliases if entry.name in rows else None) or ()  # may name aliases that were removed since
            for number, name in enumerate(entry.values.get("aliases") or ()):
                if name not in aliases and name not in held:
                    entry.at("aliases").items()[number].refuse(f'no alias named "{name}"', known_names(aliases))
            if entry.name in rows:
                self._plan_key_change(tenant, entry, rows[entry.name])
            else:
                self._plan_new_key(tenant, entry)
        if prune and "keys" in tenant_entry.parts:
            for name in sorted(rows.keys() - {entry.name for entry in named}):
                self._add(revocation(rows[name], f"{tenant.slug}/{name}"))

    def _plan_new_key(self, tenant: Tenant, entry: Entry) -> None:
        text = self._key_text(entry)
        label = f"{tenant.slug}/{entry.name}"
        terms = issuing.Terms(name=entry.name, **{name: entry.values[name] for name in _TERMS if name in entry.values})

        wanted = entry.values.get("limits")
        told = said(wanted or ())

        def perform() -> Minted | None:
            try:
                if text is not None:
                    key, minted = issuing.import_key(tenant, terms, text, more=told, **BY), None
                else:
                    key, minted = issuing.issue(tenant, terms, more=told, **BY)
            except issuing.IssuingError as error:
                raise entry.at(_secret_field(entry) if error.field == "text" else error.field).refuse(error.message) from None
            if wanted is not None:
                Limit.replace_all(key, wanted)
            return None if minted is None else Minted(tenant.slug, entry.name, minted)

        detail = "(imported)" if text is not None else "(minted)"
        self._add(Step((Change("+", "key", label, detail),), perform))

    def _plan_key_change(self, tenant: Tenant, entry: Entry, row: ApiKey) -> None:
        text = self._key_text(entry)
        if text is not None and not matches(text, stored_digest=row.digest, pepper_id=row.pepper_id, ring=self._ring):
            entry.at(_secret_field(entry)).refuse(
                f'the key "{entry.name}" has another secret',
                "rotate the key (`manage.py keys rotate`) and take the secret out of the file, or give this one another name",
            )
        draft = Draft(entry, f"{tenant.slug}/{entry.name}", row, is_new=False, tenant=tenant)
        for name in _TERMS:
            if name in entry.values:
                draft.put(name, entry.values[name])
        draft.check()
        self._add(draft.step(after_save=_put_limits(draft, row)))

    def _key_text(self, entry: Entry) -> str | None:
        """The text to import; None when the file names none, or none that could be a key."""
        text = self._secret(entry, "secret")
        if text is not None and not is_importable(text):
            entry.at(_secret_field(entry)).refuse("a key has 20 to 512 visible ASCII characters; one of Sekisho's is whole")
            return None
        return text

    def _plan_members(self, tenant: Tenant, tenant_entry: Entry) -> None:
        rows = {row.user.email: row for row in Membership.objects.filter(tenant=tenant).select_related("user")}
        for entry in tenant_entry.parts.get("members", ()):
            known = rows.get(entry.name)
            row = known or Membership(tenant=tenant)
            draft = Draft(entry, f"{tenant.slug}/{entry.name}", row, is_new=known is None, tenant=tenant)
            if "role" in entry.values:
                draft.put("role", entry.values["role"])
            self._add(draft.step(before_save=partial(_find_user, row, entry)))

    def _secret(self, entry: Entry, name: str) -> str | None:
        """A secret that stands in the file as `name`, or in the environment variable that `name_env` names."""
        if name in entry.values and f"{name}_env" in entry.values:
            entry.at(name).refuse(f"give {name} or {name}_env, not both")
        variable = entry.values.get(f"{name}_env")
        if variable is None:
            value: str | None = entry.values.get(name)
            return value
        value = self._secret_of(variable)
        if not value:
            entry.at(f"{name}_env").refuse(f"the environment variable {variable} is not set")
        elif not (value.isascii() and value.isprintable() and " " not in value):
            entry.at(f"{name}_env").refuse(f"the environment variable {variable} holds spaces or other than visible ASCII")
        return value

    def _prune(self, section: str, rows: Mapping[str, Model]) -> None:
        if section not in self._file.parts:
            return
        named = {entry.name for entry in self._entries(section)}
        for name, row in rows.items():
            if name in named:
                continue
            tenant = row if isinstance(row, Tenant) else None
            self._add(removal(section.removesuffix("s"), name, row, self._file.at(section), tenant))


def _credential(backend: Backend) -> str | None:
    try:
        return backend.credential
    except ValueError:  # its field key has left the settings: whatever the file gives replaces it
        return None


def _put_price(draft: Draft) -> None:
    if "price" not in draft.entry.values:
        return
    prices = draft.entry.values["price"] or dict.fromkeys(PRICES)
    for name, wanted in prices.items():
        draft.put_decimal(f"price_{name}", wanted, told_as=f"price.{name}")


def _put_limits(draft: Draft, row: Tenant | ApiKey | ModelAlias) -> Callable[[], None]:
    """Compare; the answer writes. Limits that are given are all there are, those that are not are left alone."""
    wanted = draft.entry.values.get("limits")
    if wanted is None:
        return lambda: None
    held = () if draft.is_new else [limit.configured for limit in row.limits.all()]
    for name, before, after in differences(held, wanted):
        draft.tell(f"limits.{name}", before, after)
        if isinstance(row, Tenant) and (planned := PlannedTenant.objects.filter(tenant=row).select_related("plan").first()):
            draft.tell("plan", planned.plan.name, None)
    return lambda: Limit.replace_all(row, wanted)


def _secret_field(entry: Entry) -> str:
    return "secret_env" if "secret_env" in entry.values else "secret"


def _find_user(membership: Membership, entry: Entry) -> None:
    """Whose a new membership is. Who is not known yet becomes a user, who cannot sign in until a password is set."""
    if membership.user_id is not None:
        return
    user = User.objects.filter(email=entry.name).first()
    if user is None:
        user = User.objects.create_user(entry.name)
        record("user.created", f"user {user}", entry.place)
    membership.user = user
