//! The dashboard: a run's figures and curves on a terminal, drawn by a thread of its own.
//!
//! The terminal is in raw mode meanwhile, so that Ctrl-C arrives as a key and not as a signal. It asks
//! for the same as the signal does: a checkpoint after the step under way, then the end.

mod board;
#[cfg(test)]
mod tests;
mod view;

use super::Lines;
use crate::{
    stop::Stop,
    train::{Progress, TrainStepDone, ValueStep},
};
use board::{Asked, Board};
use ratatui::{
    DefaultTerminal, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, enable_raw_mode},
    },
};
use std::{
    io::{self, IsTerminal},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time between two drawings.
const TICK: Duration = Duration::from_millis(200);
/// Time between two looks for a key.
const GLANCE: Duration = Duration::from_millis(20);
/// Time that the end of the run waits for the last drawing: a terminal may take nothing any more.
const LAST_DRAWING: Duration = Duration::from_secs(2);
/// The exit code of a second Ctrl-C, as after the signal: 128 and the signal's number.
const INTERRUPTED: i32 = 130;

/// The dashboard of a run: drawn from [`Progress::open`] to [`Progress::close`], lines on standard error
/// before and after. The terminal is then as it was before.
#[derive(Default)]
pub struct Dashboard(Mutex<Option<Shown>>);

/// What is drawn at present.
struct Shown {
    board: Arc<Mutex<Board>>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// Printed again at the end: the screen's own lines are gone then.
    warnings: Vec<String>,
}

impl Dashboard {
    /// Changes the board, if it is drawn.
    fn update(&self, change: impl FnOnce(&mut Board)) {
        if let Some(shown) = &*lock(&self.0) {
            change(&mut lock(&shown.board));
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.close();
    }
}

impl Progress for Dashboard {
    fn message(&self, text: &str) {
        match &*lock(&self.0) {
            Some(shown) => lock(&shown.board).message(text),
            None => Lines.message(text),
        }
    }

    fn warning(&self, text: &str) {
        match &mut *lock(&self.0) {
            Some(shown) => {
                lock(&shown.board).message(&format!("warning: {text}"));
                shown.warnings.push(text.to_owned());
            }
            None => Lines.warning(text),
        }
    }

    fn open(&self, run: &str, what: &str, stop: &Stop) -> io::Result<()> {
        let board = Arc::new(Mutex::new(Board::new(run, what)));
        let over = Arc::new(AtomicBool::new(false));
        let terminal = take_terminal().inspect_err(|_| restore())?;
        let screen = Screen {
            board: board.clone(),
            stop: stop.clone(),
            over: over.clone(),
            has_keys: io::stdin().is_terminal(),
        };
        let thread = thread::Builder::new()
            .name("dashboard".into())
            .spawn(move || screen.run(terminal))
            .inspect_err(|_| restore())?;
        *lock(&self.0) = Some(Shown {
            board,
            over,
            thread,
            warnings: Vec::new(),
        });
        Ok(())
    }

    fn value_step(&self, step: &ValueStep) {
        self.update(|board| board.value_step(step, Instant::now()));
    }

    fn step(&self, step: &TrainStepDone<'_>) {
        self.update(|board| board.step(step, Instant::now()));
    }

    fn validating(&self, done: usize, total: usize) {
        self.update(|board| board.validating(done, total));
    }

    fn validation(&self, step: usize, loss: f64, ce: &[f64]) {
        self.update(|board| board.validation(step, loss, ce));
    }

    fn event(&self, event: &str, reason: &str) {
        self.update(|board| board.message(&format!("{event}: {reason}")));
    }

    fn close(&self) {
        let Some(shown) = lock(&self.0).take() else { return };
        shown.over.store(true, Ordering::Relaxed);
        // A panic in the drawing was printed by its thread.
        let until = Instant::now() + LAST_DRAWING;
        while !shown.thread.is_finished() && Instant::now() < until {
            thread::sleep(GLANCE);
        }
        restore();
        for warning in &shown.warnings {
            Lines.warning(warning);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal in raw mode, with a screen of the run's own; as it was before the message of a panic is printed.
/// (ratatui's own start makes a panic of a terminal that is gone.)
fn take_terminal() -> io::Result<DefaultTerminal> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        hook(panic);
    }));
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen)?;
    Terminal::new(CrosstermBackend::new(io::stdout()))
}

/// The terminal as it was. One that is gone can't be restored, and nobody would see that.
fn restore() {
    if let Err(error) = ratatui::try_restore() {
        tracing::debug!("the terminal can't be restored: {error}");
    }
}

/// The thread's side.
struct Screen {
    board: Arc<Mutex<Board>>,
    stop: Stop,
    over: Arc<AtomicBool>,
    /// Keys come from standard input, and not from the process's terminal.
    has_keys: bool,
}

impl Screen {
    fn run(&self, mut terminal: DefaultTerminal) {
        while !self.over.load(Ordering::Relaxed) {
            if let Err(error) = self.draw(&mut terminal).and_then(|()| self.keys(&mut terminal)) {
                tracing::warn!("the dashboard can't be drawn: {error}");
                break;
            }
        }
        if terminal.show_cursor().is_err() {
            // It would try again when dropped, and panic.
            std::mem::forget(terminal);
        }
    }

    fn draw(&self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let mut board = lock(&self.board).clone();
        if self.stop.is_asked() && board.asked == Asked::Nothing {
            // By a signal.
            board.asked = Asked::Stop;
        }
        terminal.draw(|frame| view::draw(frame, &board, Instant::now()))?;
        Ok(())
    }

    /// Handles keys until it is time to draw again. The terminal is asked for before each look for a key, because the
    /// look at one that was closed never ends.
    fn keys(&self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let until = Instant::now() + TICK;
        while !self.over.load(Ordering::Relaxed) && Instant::now() < until {
            if !io::stdout().is_terminal() || (self.has_keys && !io::stdin().is_terminal()) {
                return Err(io::Error::other("the terminal was closed"));
            }
            if !event::poll(Duration::ZERO)? {
                thread::sleep(GLANCE);
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    if is_interrupt(key) && self.stop.is_asked() {
                        restore();
                        std::process::exit(INTERRUPTED);
                    }
                    if is_redraw(key) {
                        terminal.clear()?;
                    }
                    let mut board = lock(&self.board);
                    board.asked = pressed(board.asked, key, &self.stop);
                    return Ok(());
                }
                Event::Resize(..) => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_control(key: KeyEvent, letter: char) -> bool {
    key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char(letter)
}

fn is_interrupt(key: KeyEvent) -> bool {
    is_control(key, 'c')
}

/// Ctrl-L, which clears a screen that other programs have written to.
fn is_redraw(key: KeyEvent) -> bool {
    is_control(key, 'l')
}

/// What is asked for after a key; asks `stop` where it says so.
fn pressed(asked: Asked, key: KeyEvent, stop: &Stop) -> Asked {
    if is_interrupt(key) {
        stop.ask();
        return Asked::Stop;
    }
    match (asked, key.code) {
        (Asked::Nothing, KeyCode::Char('q')) => Asked::Choices,
        (Asked::Choices, KeyCode::Char('s')) => {
            stop.ask();
            Asked::Stop
        }
        (Asked::Choices, KeyCode::Char('k')) => {
            stop.ask_without_saving();
            Asked::StopWithoutSaving
        }
        (Asked::Choices, KeyCode::Char('c') | KeyCode::Esc) => Asked::Nothing,
        (asked, _) => asked,
    }
}
