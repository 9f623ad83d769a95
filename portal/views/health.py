"""Is the process alive? Asked by its supervisor: no store is touched, so that a store's failure restarts nobody."""

from django.http import HttpRequest, HttpResponse

from portal.access import public


@public()
def live(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok", content_type="text/plain")
