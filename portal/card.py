"""What `up` prints when everything serves, in Japanese or English."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from portal import snippets

_EN: Final = {
    "ready": "ready in {seconds:.1f} s",
    "password": "{email} / {password}   (shown this once)",
    "no password": "{email}   (forgotten? manage.py changepassword {email})",
    "key": "key  {key}   (shown this once)",
    "no key": "another key: manage.py keys create demo --name NAME",
    "aliases": "aliases  {names}",
    "try": "Try",
    "stop": "Stop: Ctrl-C    State: {home}    Check: manage.py doctor, manage.py smoke",
    "greeting": "Hello",
}
_JA: Final = {
    "ready": "{seconds:.1f} 秒で準備できました",
    "password": "{email} / {password}   （表示は今回のみ）",
    "no password": "{email}   （忘れたとき: manage.py changepassword {email}）",
    "key": "キー  {key}   （表示は今回のみ）",
    "no key": "キーの追加: manage.py keys create demo --name 名前",
    "aliases": "エイリアス  {names}",
    "try": "お試し",
    "stop": "停止: Ctrl-C    状態の保存先: {home}    確認: manage.py doctor、manage.py smoke",
    "greeting": "こんにちは",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to tell. demo_aliases empty: no demo. admin_password, key None: told at an earlier start."""

    api: str
    portal: str
    home: str
    seconds: float
    admin_email: str
    admin_password: str | None
    key: str | None
    demo_aliases: Sequence[str]


def render(facts: Facts, *, japanese: bool) -> str:
    words = _JA if japanese else _EN
    base_url = snippets.base_url(facts.api)
    person = words["password" if facts.admin_password else "no password"]
    lines = [
        "",
        f" ✔ {words['ready'].format(seconds=facts.seconds)}",
        f" Portal   {facts.portal}   {person.format(email=facts.admin_email, password=facts.admin_password)}",
        f" API      {base_url}",
    ]
    if facts.demo_aliases:
        lines.append(f"          {words['aliases'].format(names=', '.join(facts.demo_aliases))}")
        lines.append(f"          {words['key' if facts.key else 'no key'].format(key=facts.key)}")
        call = snippets.curl(base_url, facts.demo_aliases[0], words["greeting"])
        if facts.key:
            call = call.replace("$SEKISHO_API_KEY", facts.key)
        lines += ["", f" {words['try']}:", "", *call.splitlines()]
    lines += ["", f" {words['stop'].format(home=facts.home)}", ""]
    return "\n".join(lines)
