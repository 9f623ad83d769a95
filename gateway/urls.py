"""The paths of the gateway. A trailing slash is served, not redirected: HTTP clients turn a redirected POST into a GET."""

from django.urls import re_path

from gateway.api import operations, self_service, views

urlpatterns = [
    re_path(r"^v1/chat/completions/?\Z", views.ChatCompletions.as_view(), name="chat.completions"),
    re_path(r"^v1/models/?\Z", views.Models.as_view(), name="models"),
    re_path(r"^v1/models/(?P<name>.+?)/?\Z", views.Model.as_view(), name="models.one"),  # names hold / and .
    re_path(r"^v1/usage/?\Z", self_service.Usage.as_view(), name="usage"),
    re_path(r"^v1/limits/?\Z", self_service.Limits.as_view(), name="limits"),
    re_path(r"^v1/requests/(?P<request_id>[^/]+)/?\Z", self_service.PastRequest.as_view(), name="requests.one"),
    re_path(r"^(?:health|livez)/?\Z", operations.live, name="live"),
    re_path(r"^readyz/?\Z", operations.ready, name="ready"),
    re_path(r"^metrics/?\Z", operations.prometheus, name="metrics"),
    re_path(r"^.*\Z", views.unsupported, name="unsupported"),
]
handler500 = views.failed
