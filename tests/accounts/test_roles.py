"""The matrix of roles and actions, row by row."""

import pytest

from accounts.roles import Action, Role, allows

MATRIX = {
    Role.VIEWER: {Action.VIEW},
    Role.DEVELOPER: {Action.VIEW, Action.USE_PLAYGROUND, Action.MANAGE_KEYS},
    Role.ADMIN: {
        Action.VIEW,
        Action.USE_PLAYGROUND,
        Action.MANAGE_KEYS,
        Action.MANAGE_POLICIES,
        Action.MANAGE_SETTINGS,
        Action.VIEW_AUDIT,
        Action.MANAGE_MEMBERS,
    },
    Role.OWNER: set(Action),
}


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_role_may_do_what_the_matrix_says_and_no_more(role: Role, action: Action) -> None:
    assert allows(role, action) == (action in MATRIX[role])


def test_each_role_may_all_that_the_one_below_may() -> None:
    below: set[Action] = set()
    for role in (Role.VIEWER, Role.DEVELOPER, Role.ADMIN, Role.OWNER):
        allowed = {action for action in Action if allows(role, action)}
        assert below < allowed
        below = allowed


@pytest.mark.parametrize("role", ["", "root", "Owner", "owner "])
@pytest.mark.parametrize("action", Action)
def test_unknown_role_may_nothing(role: str, action: Action) -> None:
    assert not allows(role, action)
