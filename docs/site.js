// A page that is read from the disk may start no worker: there, the search runs in a hidden frame instead.
if (location.protocol === "file:")
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = data => setTimeout(() => this.onmessage?.({ data }));
      const script = inside.document.createElement("script");
      script.src = url;
      const loaded = new Promise(done => (script.onload = done));
      inside.document.body.append(script);
      this.postMessage = data => loaded.then(() => inside.onmessage({ data }));
    }
    terminate() {
      this.frame.remove();
    }
  };
