"""Flask's own sessions: in the cookie, signed by the app."""
import json
import os
import sys
import time

from flask import Flask, request, session

PEOPLE = json.loads(os.environ["PEOPLE"])
app = Flask(__name__)
app.secret_key = os.urandom(24)


@app.post("/login")
def login():
    person = PEOPLE[request.form["name"]]
    session.update(user_id=person["id"], roles=person["roles"], logged_in_at=time.time())
    return "", 204


@app.post("/logout")
def logout():
    session.clear()
    return "", 204


@app.get("/")
def index():
    return "hello, " + session.get("user_id", "stranger")


exec(os.environ["WHOAMI"])
app.run(port=int(sys.argv[1]))
