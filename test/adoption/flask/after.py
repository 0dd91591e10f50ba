import os
from urllib.parse import unquote

from flask import Flask, jsonify, redirect, request, session

app = Flask(__name__)
app.secret_key = os.environ["SESSION_SECRET"]


def user_id():
    subject = request.headers.get("X-Auth-Subject")
    return unquote(subject, errors="strict") if subject else session.get("user_id")


@app.post("/login")
def login():
    session["user_id"] = "u-" + request.args["name"]
    return redirect("/")


@app.post("/logout")
def logout():
    session.clear()
    return redirect("/")


@app.get("/")
def hello():
    return f"hello, {user_id() or 'stranger'}"


@app.get("/api/me")
def me():
    return jsonify(id=user_id()) if user_id() else ("", 401)


@app.get("/whoami")
def whoami():
    return jsonify(id=session["user_id"]) if "user_id" in session else ("", 401)


app.run("127.0.0.1", int(os.environ["PORT"]))
