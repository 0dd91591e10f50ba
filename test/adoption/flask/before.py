import os

from flask import Flask, jsonify, redirect, request, session

app = Flask(__name__)
app.secret_key = os.environ["SESSION_SECRET"]


def user_id():
    return session.get("user_id")


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


app.run("127.0.0.1", int(os.environ["PORT"]))
