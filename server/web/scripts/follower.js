// Keeps the end of the conversation in sight while it grows, unless the person has scrolled up.

const NEAR = 80; // px from the end that count as at the end

export class Follower {
  #scroller;
  #button;
  #following = true;

  /** `button` is shown when the end is out of sight, and goes there. */
  constructor(scroller, button) {
    this.#scroller = scroller;
    this.#button = button;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.grew()).observe(scroller);
    new ResizeObserver(() => this.grew()).observe(scroller.lastElementChild);
    button.addEventListener("click", () => this.toEnd());
  }

  /** The content may have grown. */
  grew() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    else this.#scrolled();
  }

  toEnd() {
    this.#following = true;
    this.grew();
    this.#button.hidden = true;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#button.hidden = this.#following;
  }
}
