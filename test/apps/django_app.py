"""Django with its own users, logins and sessions: all of them in a database that nobody else reads."""
import json
import os
import sys
from wsgiref.simple_server import make_server

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY=os.urandom(24).hex(),
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DIRECTORY"] + "/django.sqlite"}},
)
django.setup()

from django.contrib import auth
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

call_command("migrate", verbosity=0)
for person in json.loads(os.environ["PEOPLE"]).values():
    created = User.objects.create(pk=len(User.objects.all()) + 1, username=person["id"])
    created.groups.set(Group.objects.get_or_create(name=role)[0] for role in person["roles"])
NAMES = {name: person["id"] for name, person in json.loads(os.environ["PEOPLE"]).items()}

exec(os.environ["WHOAMI"])


def login(request):
    auth.login(request, User.objects.get(username=NAMES[request.POST["name"]]))
    return HttpResponse(status=204)


def logout(request):
    auth.logout(request)
    return HttpResponse(status=204)


def index(request):
    return HttpResponse("hello, " + (request.user.username if request.user.is_authenticated else "stranger"))


urlpatterns = [path("login", login), path("logout", logout), path("whoami", whoami), path("", index)]
with make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()) as server:
    print("listening", flush=True)
    server.serve_forever()
