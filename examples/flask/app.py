import os
import platform

from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/")
def hello():
    return jsonify(
        greeting=os.environ["GREETING"],
        python=platform.python_version(),
        uid=os.getuid(),
        hostname=platform.node(),
    )


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
