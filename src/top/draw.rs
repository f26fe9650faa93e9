//! A [`State`] as a frame. Pure: the same state gives the same frame, on a terminal and as text.

use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::state::{Flow, Page, State, size, speed, text};

/// A frame where there is no terminal.
const PLAIN: (u16, u16) = (120, 40);
const HELP: &str = "\
 left, right   pulls, swarms or tasks, nodes
 up, down      the row
 s             sort by the next column
 p             pause
 q             end
 ?             this";

/// Draws all of it.
pub fn frame(frame: &mut Frame, state: &State) {
    let flows = state.flows();
    let rows = u16::try_from(flows.len()).unwrap_or(u16::MAX).saturating_add(2);
    let parts = [
        Constraint::Length(1),
        Constraint::Length(rows),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [head, speeds, table, cache, keys] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(head_line(state), head);
    draw_flows(frame, speeds, &flows);
    draw_table(frame, table, state);
    frame.render_widget(Line::from(cache_line(state)), cache);
    let words = " q end  ←→ page  ↑↓ row  s sort  p pause  ? help";
    frame.render_widget(Line::styled(words, Style::new().add_modifier(Modifier::DIM)), keys);
    if state.help {
        let area = frame.area();
        let [width, height] = [48.min(area.width), 8.min(area.height)];
        let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
        frame.render_widget(Clear, place);
        frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" keys ")), place);
    }
}

/// The frame as plain text.
///
/// # Errors
/// When it cannot be drawn.
pub fn plain(state: &State) -> anyhow::Result<String> {
    let rows = u16::try_from(state.table().rows.len() + state.flows().len() + 10).unwrap_or(u16::MAX);
    let mut terminal = Terminal::new(TestBackend::new(PLAIN.0, rows.clamp(PLAIN.1 / 2, 200)))?;
    terminal.draw(|shown| frame(shown, state))?;
    let buffer = terminal.backend().buffer();
    let line = |y: u16| {
        let symbols = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        format!("{}\n", symbols.trim_end())
    };
    Ok((0..buffer.area.height).map(line).collect())
}

fn head_line(state: &State) -> Line<'static> {
    let node = state.node();
    let kind = if state.is_supernode() { "supernode" } else { "peer" };
    let mut words = vec![Span::styled(
        format!(" {kind} {:.12}, {}", text(&node["node"]), text(&node["version"])),
        Style::new().add_modifier(Modifier::BOLD),
    )];
    if let Some(look) = &state.look {
        words.push(Span::raw(match state.is_supernode() {
            true => format!(", {} sessions", look.status["sessions"]),
            false => {
                let all = look.status["supernodes"].as_array().map_or(&[][..], Vec::as_slice);
                let up = all.iter().filter(|supernode| supernode["connected"] == true).count();
                format!(", {up} of {} supernodes", all.len())
            }
        }));
    }
    if state.paused {
        words.push(Span::styled("  paused", Style::new().fg(Color::Yellow)));
    }
    if let Some(trouble) = &state.trouble {
        words.push(Span::styled(format!("  {trouble}"), Style::new().fg(Color::Red)));
    }
    Line::from(words)
}

fn draw_flows(frame: &mut Frame, area: Rect, flows: &[Flow]) {
    let block = Block::default().borders(Borders::TOP | Borders::BOTTOM).title(" bytes ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    for (flow, at) in flows.iter().zip(0..inner.height) {
        let line = Rect::new(inner.x, inner.y + at, inner.width, 1);
        let [words, curve] = Layout::horizontal([Constraint::Length(44), Constraint::Min(0)]).areas(line);
        let said = format!(" {:<14} {:>13} {:>12}", flow.name, speed(flow.rate), size(flow.total as f64));
        frame.render_widget(Line::from(said), words);
        // The newest at the right end.
        let room = usize::from(curve.width);
        let pad = std::iter::repeat_n(0, room.saturating_sub(flow.curve.len()));
        let points: Vec<u64> =
            pad.chain(flow.curve.iter().copied().skip(flow.curve.len().saturating_sub(room))).collect();
        frame.render_widget(Sparkline::default().data(&points).style(Style::new().fg(Color::Cyan)), curve);
    }
}

fn draw_table(frame: &mut Frame, area: Rect, state: &State) {
    let table = state.table();
    let sorted = state.sort.min(table.head.len() - 1);
    let head = table
        .head
        .iter()
        .enumerate()
        .map(|(at, word)| if at == sorted && at > 0 { format!("{word}*") } else { (*word).to_owned() });
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
    let widths: Vec<Constraint> = (0..table.head.len()).map(|at| width(state.page, &table, at)).collect();
    let rows = table.rows.iter().map(|row| Row::new(row.clone()));
    let drawn = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::default().borders(Borders::BOTTOM).title(format!(" {} ", table.title)));
    let selected = (!table.rows.is_empty()).then_some(state.row.min(table.rows.len().saturating_sub(1)));
    frame.render_stateful_widget(drawn, area, &mut TableState::default().with_selected(selected));
}

/// What a column needs, and no more than is good for it.
fn width(page: Page, table: &super::state::Table, at: usize) -> Constraint {
    let longest = table.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let needed = longest.max(table.head[at].len() + 1);
    let most = if page == Page::Pulls && at == 0 { 44 } else { 60 };
    Constraint::Length(u16::try_from(needed.min(most)).unwrap_or(u16::MAX))
}

fn cache_line(state: &State) -> String {
    let node = state.node();
    let count = |field: &str| size(node[field].as_f64().unwrap_or_default());
    let number = |field: &str| node[field].as_u64().unwrap_or_default();
    let quota = node["quota_bytes"].as_f64().map_or_else(String::new, |quota| format!(" of {}", size(quota)));
    format!(
        " cache: {} in {} tasks ({} pinned), disk {}{quota}, {} free",
        count("stored_bytes"),
        number("stored_tasks"),
        number("pinned_tasks"),
        count("disk_bytes"),
        count("free_bytes")
    )
}

#[cfg(test)]
mod tests {
    use super::super::state::Press;
    use super::super::state::tests::{peer_look, supernode_look};
    use super::*;

    #[test]
    fn a_frame_shows_pulls_speeds_blame_and_cache() {
        let mut state = State::default();
        state.saw(peer_look(1.0, 1 << 20));
        state.saw(peer_look(2.0, 3 << 20));
        let text = plain(&state).unwrap();
        for part in [
            "peer 7f7f7f7f7f7f, 0.1.0, 1 of 2 supernodes",
            "from peer         2.00 MiB/s     3.00 MiB",
            "pulls: 1 go on, 2 are remembered",
            "cache: 1.00 GiB in 12 tasks (1 pinned), disk 1.00 GiB, 5.00 GiB free",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let row = text.lines().find(|line| line.contains("abababababab")).unwrap();
        assert!(
            row.contains("running") && row.contains("2.67 MiB/s") && row.contains("peer 75 %, seed 25 %"),
            "{row}"
        );
        state.press(Press::Left);
        let text = plain(&state).unwrap();
        assert!(text.contains("1111111111111111") && text.contains("silent 1, slow 3"), "{text}");
    }

    #[test]
    fn any_state_fits_any_terminal() {
        let mut states = [State::default(), State::default(), State::default()];
        states[1].saw(peer_look(1.0, 1 << 20));
        states[2].saw(supernode_look(1.0));
        for state in &mut states {
            for press in [Press::Right, Press::Right, Press::Right, Press::Help, Press::Pause] {
                state.press(press);
                state.missed("the daemon does not answer".into());
                for (width, height) in [(1, 1), (10, 3), (80, 24), (300, 100)] {
                    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
                    terminal.draw(|shown| frame(shown, state)).unwrap();
                }
            }
        }
        let text = plain(&states[2]).unwrap();
        assert!(
            text.contains("supernode 5e5e5e5e5e5e, 0.1.0, 2 sessions  paused  the daemon does not answer"),
            "{text}"
        );
        assert!(text.contains(" keys ") && text.contains("sort by the next column"), "{text}");
    }
}
