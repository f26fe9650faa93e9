//! `longshore top`: what goes on at a daemon, live. It asks the daemon twice what it asks it for once ([`state`] makes speeds of
//! that), and draws on change ([`draw`]). The terminal is given back however it ends: `q`, Ctrl-C, SIGTERM, or a panic.

mod draw;
mod state;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::state::{Look, Press, State};
use crate::cli::Top;
use crate::local::{self, Daemon, Kind};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between the two looks of a frame that is printed once.
const SHORT_LOOK: Duration = Duration::from_millis(500);
/// How soon the keyboard's thread sees that it is over.
const KEYS: Duration = Duration::from_millis(100);
/// Keys that wait to be seen.
const PRESSED: usize = 16;

/// Runs the command.
pub async fn run(flags: Top) -> anyhow::Result<()> {
    let kinds: &[Kind] = if flags.supernode { &[Kind::Supernode] } else { &[Kind::Peer, Kind::Supernode] };
    let mut daemon = local::daemon(&flags.at, kinds).await?;
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if flags.once || !terminal {
        return once(&mut daemon).await;
    }
    let mut screen = Screen::open()?;
    live(&mut screen.terminal, &mut daemon).await
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
async fn once(daemon: &mut Daemon) -> anyhow::Result<()> {
    let (mut state, begin) = (State::default(), Instant::now());
    state.saw(look(daemon, begin).await?);
    sleep(SHORT_LOOK).await;
    state.saw(look(daemon, begin).await?);
    print!("{}", draw::plain(&state)?);
    Ok(())
}

async fn live(terminal: &mut DefaultTerminal, daemon: &mut Daemon) -> anyhow::Result<()> {
    let (mut state, begin) = (State::default(), Instant::now());
    let (mut keyboard, mut clock) = (Keyboard::open(), interval(LOOK));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(terminate), Ok(interrupt), Ok(hangup)] = &mut ends else {
        anyhow::bail!("the system gives no signals");
    };
    loop {
        terminal.draw(|frame| draw::frame(frame, &state)).context("cannot draw on the terminal")?;
        tokio::select! {
            pressed = keyboard.pressed.recv() => match pressed {
                Some(Some(press)) if !state.press(press) => return Ok(()),
                // Nothing that means anything, or another size: drawn anew.
                Some(_) => {}
                None => return Ok(()),
            },
            _ = clock.tick() => match look(daemon, begin).await {
                Ok(look) => state.saw(look),
                Err(error) => state.missed(format!("the daemon does not answer: {error:#}")),
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

async fn look(daemon: &mut Daemon, begin: Instant) -> anyhow::Result<Look> {
    let status = daemon.json("/status").await?;
    let pulls = serde_json::from_value(daemon.json("/pulls").await?)?;
    Ok(Look { at: begin.elapsed().as_secs_f64(), status, pulls })
}

/// The terminal while it is ours.
struct Screen {
    terminal: DefaultTerminal,
}

// === impl Screen ===

impl Screen {
    fn open() -> anyhow::Result<Self> {
        // It also has a panic give the terminal back.
        let terminal = ratatui::try_init().context("cannot use this terminal: try `longshore top --once`")?;
        Ok(Self { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What is pressed, read by a thread of its own, for a terminal can only be waited for.
struct Keyboard {
    pressed: mpsc::Receiver<Option<Press>>,
    over: Arc<AtomicBool>,
}

// === impl Keyboard ===

impl Keyboard {
    fn open() -> Self {
        let (sender, pressed) = mpsc::channel(PRESSED);
        let over = Arc::new(AtomicBool::new(false));
        let watched = over.clone();
        // It ends with `over`, which is looked at every so often.
        tokio::task::spawn_blocking(move || {
            while !watched.load(Ordering::Relaxed) {
                let event = match event::poll(KEYS) {
                    Ok(true) => event::read(),
                    Ok(false) => continue,
                    Err(error) => Err(error),
                };
                let Ok(event) = event else { return };
                if sender.blocking_send(press_of(&event)).is_err() {
                    return;
                }
            }
        });
        Self { pressed, over }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn press_of(event: &Event) -> Option<Press> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) =
        event
    else {
        return None;
    };
    Some(match code {
        KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => Press::End,
        KeyCode::Char('q') | KeyCode::Esc => Press::Quit,
        KeyCode::Char('s') => Press::Sort,
        KeyCode::Char('p' | ' ') => Press::Pause,
        KeyCode::Char('?' | 'h') => Press::Help,
        KeyCode::Up | KeyCode::Char('k') => Press::Up,
        KeyCode::Down | KeyCode::Char('j') => Press::Down,
        KeyCode::Left | KeyCode::BackTab => Press::Left,
        KeyCode::Right | KeyCode::Tab => Press::Right,
        _ => return None,
    })
}
