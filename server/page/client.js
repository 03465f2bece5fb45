// The server's routes, as far as the page uses them.

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Client {
  constructor(key) {
    this.key = key;
  }

  async addIdentity(file) {
    const form = new FormData();
    form.append("photo", file);
    form.append("consent", "said on the page");
    return (await this.ask("POST", "/v1/identities", form)).json();
  }

  async removeIdentity(id) {
    await this.ask("DELETE", `/v1/identities/${encodeURIComponent(id)}`);
  }

  async cancel(id) {
    await this.ask("DELETE", `/v1/pictures/${encodeURIComponent(id)}`);
  }

  // The events of a picture: {name, data}.
  async *draw(body) {
    const answer = await this.ask("POST", "/v1/pictures", JSON.stringify(body), { "Content-Type": "application/json" });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const frames = text.split("\n\n");
      text = frames.pop();
      for (const frame of frames) {
        const lines = Object.fromEntries(frame.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
        if (lines.event) yield { name: lines.event, data: JSON.parse(lines.data) };
      }
    }
  }

  async ask(method, path, body, headers = {}) {
    const key = this.key();
    const all = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
    let answer;
    try {
      answer = await fetch(path, { method, body, headers: all });
    } catch {
      throw new Error("The server cannot be reached.");
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => null);
    const wait = answer.headers.get("Retry-After");
    const message = said?.error?.message ?? `The server answered ${answer.status}.`;
    throw new ServerError(answer.status, wait ? `${message} (in about ${wait} s)` : message);
  }
}
